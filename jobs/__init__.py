"""The six verbs, their recipes and the training loop; the room that knows Ray and MLflow."""
