"""One fit: data of a fold prepared on its training patients, the loop, its history, its resume point."""
