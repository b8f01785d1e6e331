"""`predilect align`: from preferences to a trained model, methods compared on the same data, models measured."""
