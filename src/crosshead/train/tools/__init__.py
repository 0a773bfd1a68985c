"""What is asked of runs beside training: the doctor, sweeps, profiles."""
