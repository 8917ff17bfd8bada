"""Quality on question sets: `kb eval`, its comparison and report, sets made from feedback."""
