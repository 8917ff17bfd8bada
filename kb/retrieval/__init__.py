"""From a question to passages: both channels, fusion, reranking, and the index behind them."""
