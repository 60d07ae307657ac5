"""COVID-CT: chest CT slices with and without COVID-19."""
