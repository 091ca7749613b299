"""What a training view is: `augment.py` draws where to look, `transforms.py` and `policies.py` what becomes of the pixels."""
