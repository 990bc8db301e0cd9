"""Free energies from i-PI output files; never imports torch or ipi."""
