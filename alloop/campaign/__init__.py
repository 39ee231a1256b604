"""The reconciler: plan what is missing, have it done, commit it, until there is a verdict."""
