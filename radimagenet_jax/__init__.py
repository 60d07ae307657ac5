"""RadImageNet in JAX: pretrained radiology networks, fine-tuning and comparison."""

__version__ = "0.1.0"
