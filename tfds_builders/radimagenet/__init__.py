"""RadImageNet: 1.35 million CT, MR and ultrasound images in 165 classes."""
