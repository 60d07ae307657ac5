"""MRNet: knee MR exams, as slices with the labels of two tears."""
