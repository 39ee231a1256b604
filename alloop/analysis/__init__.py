"""What trajectories show: spectra, geometries and energies, beside the noise of their sampling."""
