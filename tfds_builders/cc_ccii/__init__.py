"""CC-CCII: chest CT slices of COVID-19 and of other pneumonia."""
