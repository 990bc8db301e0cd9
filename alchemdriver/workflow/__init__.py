"""Free energies in stages: a folder of numbered i-PI inputs and a manifest that links them.

plan      crystal, vacancy, transmute → stages on disk
manifest  which file of which stage feeds which input of which other stage
runner    executes what is not done, stage by stage
relax     ASE relaxation of cell and positions
averages  trajectories → mean structure, spring constants, did the crystal keep its phase
symmetry  averages over the space group (spglib)
"""
