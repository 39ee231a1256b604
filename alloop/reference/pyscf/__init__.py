"""PySCF as a reference: Hartree-Fock, density functionals, MP2 and coupled clusters.

Sun et al., doi:10.1063/5.0006074. Each reference has a child process that computes its labels, so
that whatever becomes of PySCF (memory, time, a crash) costs one frame and not the worker.
"""
