#!/usr/bin/env bash
# Creates a virtual environment with the pinned requirements.   usage: setup_environment.sh VENV
# PYTHON            interpreter to use (3.11 or 3.12)
# TORCH_INDEX_URL   extra package index for torch, e.g. PyTorch's own index of CPU or CUDA builds
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
python=${PYTHON:-python3}
torch_version=$(sed -n 's/^torch==//p' requirements.txt)

"$python" -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 12)))' || {
  echo "setup: Python 3.11 or 3.12 is needed, $python is $("$python" --version 2>&1); call 'make setup PYTHON=python3.11'" >&2
  exit 1
}

# Libraries that Open3D links or renders with, a C++ compiler, and venv support (Debian names).
missing=()
need_library() { ldconfig -p | grep -q "$1" || missing+=("$2"); }
need_library libusb-1.0.so.0 libusb-1.0-0
need_library libudev.so.1 libudev1
need_library libEGL.so.1 libegl1
need_library libGL.so.1 libgl1
need_library libX11.so.6 libx11-6
need_library libidn2.so.0 libidn2-0
need_library libvulkan.so.1 libvulkan1
need_library libgomp.so.1 libgomp1
compgen -G "/usr/share/vulkan/icd.d/lvp_icd*.json" > /dev/null || missing+=(mesa-vulkan-drivers)
command -v g++ > /dev/null || missing+=(g++)
"$python" -c 'import ensurepip, venv' 2> /dev/null || missing+=(python3-venv)
if ((${#missing[@]})); then
  as_root=()
  if ((EUID != 0)); then
    command -v sudo > /dev/null || {
      echo "setup: please install these Debian packages as root, then call again: ${missing[*]}" >&2
      exit 1
    }
    as_root=(sudo)
  fi
  echo "setup: installing system packages: ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
fi

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip=("$venv/bin/pip" --disable-pip-version-check --quiet)
index=()
[ -z "${TORCH_INDEX_URL:-}" ] || index=(--extra-index-url "$TORCH_INDEX_URL")
echo "setup: torch $torch_version"
if command -v nvidia-smi > /dev/null && nvidia-smi -L > /dev/null 2>&1; then
  "${pip[@]}" install "${index[@]}" "torch==$torch_version"
else # no CUDA device: the CPU build where an index has it, else whatever build there is
  "${pip[@]}" install "${index[@]}" "torch==$torch_version+cpu" 2> /dev/null ||
    "${pip[@]}" install "${index[@]}" "torch==$torch_version"
fi
echo "setup: the other requirements"
"${pip[@]}" install -r requirements.txt -r requirements-dev.txt
