"""What is wrong with labelled images: labels, copies, outliers, classes that are hard to tell apart; and its page."""
