"""Networks for other people's programs: ONNX, StableHLO and Keras files that need none of ours."""
