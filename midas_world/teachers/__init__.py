"""Games that worlds learn from: any Gymnasium env, what plays it, and the collecting of play."""
