"""An asyncio-native workflow engine that versions the state of every run."""
