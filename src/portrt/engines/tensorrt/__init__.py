"""What TensorRT and TensorRT-RTX share: libraries, opened engines, sessions and CUDA graphs."""
