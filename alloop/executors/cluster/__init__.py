"""Pools of workers on clusters: Parsl's gaps closed, pools revived, nothing left behind."""
