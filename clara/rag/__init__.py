"""The parts of `RAGMaster`: its settings, its search, its answers."""
