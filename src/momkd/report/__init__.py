"""Pictures of what a run says."""
