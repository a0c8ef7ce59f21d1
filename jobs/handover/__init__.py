"""A finished system in one folder, for somebody who has no clone: MLflow's model, the Hub's files, torch.export."""
