"""RSNA Pneumonia Detection Challenge: chest radiographs."""
