// The table of contents of the native code: every operator schema.  Kernels
// register themselves per device in binding/cpu and binding/cuda; fake kernels
// and autograd live in perception3d/ops.
#include <torch/csrc/stable/library.h>

#include "binding/library_name.h"

P3D_DEFINE_LIBRARY(P3D_LIBRARY, m) {
  // Points to voxels.
  m.def(
      "voxelize(Tensor points, Tensor frame_of_point, int batch_size, "
      "float[] voxel_size, "
      "float[] lower, int[] grid_size, bool check_z) -> (Tensor "
      "voxel_of_point, Tensor coords, "
      "Tensor order, Tensor offsets)");
  m.def(
      "hard_voxelize(Tensor points, float[] voxel_size, float[] lower, int[] "
      "grid_size, "
      "int max_points, int max_voxels) -> (Tensor voxel_of_point, Tensor "
      "coords, "
      "Tensor num_points)");

  // Rows that share a segment.
  m.def(
      "segment_index(Tensor segment_of_row, int num_segments) -> (Tensor "
      "order, Tensor offsets)");
  m.def(
      "segment_sum(Tensor values, Tensor order, Tensor offsets, bool mean) "
      "-> Tensor");
  m.def(
      "segment_sum_backward(Tensor grad, Tensor order, Tensor offsets, int "
      "num_rows, bool mean) "
      "-> Tensor");
  m.def(
      "segment_max(Tensor values, Tensor order, Tensor offsets, bool keep_rows) -> "
      "(Tensor maximum, Tensor row_of_maximum)");
  m.def(
      "segment_max_backward(Tensor grad, Tensor row_of_maximum, int "
      "num_rows) -> Tensor");

  // Voxels to windows and sets.
  m.def(
      "window_partition(Tensor coords, int batch_size, int[] spatial_shape, "
      "int[] window, "
      "int[] shift, bool x_slowest) -> (Tensor window_of_voxel, Tensor "
      "order, Tensor offsets, "
      "Tensor cell_in_window)");
  m.def(
      "set_partition(Tensor cell_in_window, Tensor order, Tensor offsets, "
      "int set_size) -> "
      "(Tensor voxel_of_slot, Tensor repeated, Tensor slot_of_voxel, Tensor order, Tensor "
      "offsets)");

  // Attention inside sets.
  m.def(
      "set_attention(Tensor query, Tensor key, Tensor value, Tensor order, Tensor offsets, "
      "bool keep_log_sum) -> (Tensor result, Tensor log_sum)");
  m.def(
      "set_attention_qk(Tensor query_key, Tensor value, Tensor order, Tensor offsets, "
      "bool keep_log_sum) -> (Tensor result, Tensor log_sum)");
  m.def(
      "set_attention_backward(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor result, "
      "Tensor log_sum, Tensor order, Tensor offsets) -> Tensor");

  // Linear maps of rows; the activation is an Activation of cpu/linear.h.
  m.def("linear(Tensor rows, Tensor weight, Tensor? bias, int activation) -> Tensor");
  m.def(
      "linear_weight_gradient(Tensor grad, Tensor rows, bool needs_bias) -> (Tensor grad_weight, "
      "Tensor grad_bias)");

  // A layer of a set transformer.  Maps: query, key and value in one, projection, feed-forward.
  m.def(
      "set_transformer(Tensor rows, Tensor table, Tensor index, Tensor order, Tensor offsets, "
      "int heads, Tensor[] weights, Tensor[] biases, int activation, Tensor[] kept, "
      "Tensor[] norm_weights, Tensor[] norm_biases, float epsilon) -> Tensor");

  // RMS norm and Mamba mixer, then a layer norm.
  m.def(
      "mamba_mixer(Tensor rows, Tensor? added, Tensor offsets, Tensor? order, bool reverse, "
      "Tensor norm, float epsilon, Tensor in_proj, Tensor conv_weight, Tensor conv_bias, "
      "Tensor x_proj, Tensor step_proj, Tensor step_bias, Tensor A, Tensor skip, Tensor out_proj, "
      "Tensor? after_weight, Tensor? after_bias, float after_epsilon) -> Tensor");

  // Sparse convolutions.
  m.def("subm_index(Tensor coords, int batch_size, int[] spatial_shape, int[] kernel) -> Tensor");
  m.def(
      "depthwise_conv(Tensor features, Tensor[] neighbours, Tensor[] weights, "
      "int[] first_channels, bool residual) -> Tensor");
  m.def(
      "depthwise_conv_backward(Tensor grad, Tensor features, Tensor[] neighbours, "
      "Tensor[] weights, int[] first_channels, bool residual, bool needs_features, "
      "bool needs_weights) -> (Tensor grad_features, Tensor[] grad_weights)");
  m.def("subm_conv(Tensor features, Tensor neighbours, Tensor weight, Tensor? bias) -> Tensor");
  m.def(
      "subm_conv_backward(Tensor grad, Tensor features, Tensor neighbours, Tensor weight, "
      "bool needs_features, bool needs_weight) -> (Tensor grad_features, Tensor grad_weight)");
  m.def(
      "sparse_index(Tensor coords, int batch_size, int[] spatial_shape, int[] kernel, "
      "int[] stride, int[] padding) -> (Tensor out_coords, Tensor inputs, Tensor outputs)");
  m.def(
      "sparse_conv(Tensor features, Tensor inputs, Tensor outputs, Tensor weight, Tensor? bias) "
      "-> Tensor");
  m.def(
      "sparse_conv_backward(Tensor grad, Tensor features, Tensor inputs, Tensor outputs, "
      "Tensor weight, bool needs_features, bool needs_weight) -> (Tensor grad_features, "
      "Tensor grad_weight)");

  // Voxels along a space-filling curve.
  m.def("curve_index(Tensor coords, int rank, int shift, bool hilbert) -> Tensor");
  m.def(
      "curve_order(Tensor coords, int batch_size, int rank, int shift, bool hilbert) -> (Tensor "
      "order, Tensor inverse, Tensor offsets)");

  // Sequences laid end to end.  checkpoints and last_state are empty unless they are to be kept,
  // and so are the gradients of what is None.
  m.def(
      "selective_scan(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor offsets, "
      "Tensor? skip, Tensor? gate, Tensor? delta_bias, bool delta_softplus, Tensor? order, bool "
      "reverse, bool keep_checkpoints, bool keep_state) -> (Tensor y, Tensor checkpoints, Tensor "
      "last_state)");
  m.def(
      "selective_scan_backward(Tensor grad, Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, "
      "Tensor offsets, Tensor? skip, Tensor? gate, Tensor? delta_bias, bool delta_softplus, "
      "Tensor? order, bool reverse, Tensor checkpoints) -> (Tensor u, Tensor delta, Tensor A, "
      "Tensor B, Tensor C, Tensor skip, Tensor gate, Tensor delta_bias)");
  m.def(
      "causal_conv1d(Tensor x, Tensor weight, Tensor? bias, Tensor offsets, bool silu, Tensor? "
      "order, bool reverse) -> Tensor");
  m.def(
      "causal_conv1d_backward(Tensor grad, Tensor x, Tensor weight, Tensor? bias, Tensor offsets, "
      "bool silu, Tensor? order, bool reverse) -> (Tensor x, Tensor weight, Tensor bias)");

  // Attention inside windows.  Gradients of query, key and value lie side by side in one tensor
  // (rows, heads * (2 * key width + value width)).
  m.def(
      "scattered_linear_attention(Tensor query, Tensor key, Tensor value, Tensor offsets, "
      "Tensor? order, float epsilon) -> Tensor");
  m.def(
      "scattered_linear_attention_backward(Tensor grad, Tensor query, Tensor key, Tensor value, "
      "Tensor offsets, Tensor? order, float epsilon) -> Tensor");
  m.def(
      "scattered_linear_attention_qkv(Tensor qkv, Tensor offsets, Tensor? order, float epsilon) "
      "-> Tensor");

  // Boxes.  A limit of -1 means none; a measure is a BoxMeasure of
  // common/rotated_box.h.
  m.def("box_overlap(Tensor boxes_a, Tensor boxes_b, int measure, bool aligned) -> Tensor");
  m.def(
      "rotated_nms(Tensor boxes, Tensor scores, float iou_threshold, int "
      "pre_max, int post_max) "
      "-> Tensor");
  m.def(
      "circle_nms(Tensor centers, Tensor scores, float squared_distance, int "
      "post_max) -> Tensor");
  m.def(
      "points_in_boxes(Tensor points, Tensor boxes, float margin) -> (Tensor "
      "box_of_member, "
      "Tensor point_of_member)");
}
