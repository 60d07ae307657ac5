"""One folder a data set, each a standard TensorFlow Datasets builder."""
