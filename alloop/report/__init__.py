"""What people see of a campaign: its status, its live display, its pictures."""
