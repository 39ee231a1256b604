-- Error against number of labels: one row for each committee, forces in eV/Å, energies in eV/atom.
-- Errors and labels are those of the committee's tier; mode says how it learnt from the tier below.
SELECT
    generation, tier, level_of_theory, mode, n_labels, audit_force_rmse, audit_force_low,
    audit_force_high, audit_energy_rmse, own_audit_force_rmse, prospective_force_rmse,
    validation_force_rmse, n_audit
FROM v_learning_curve
ORDER BY generation;
