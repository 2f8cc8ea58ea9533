"""Turn contract rows into features, graphs, a trained model and decisions."""
