"""momkd: train on slides and RNA, predict from the slide alone."""
