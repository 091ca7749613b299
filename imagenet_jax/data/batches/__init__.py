"""What the device is fed: `loader.py` for training and evaluation, `photos.py` for anybody's photographs."""
