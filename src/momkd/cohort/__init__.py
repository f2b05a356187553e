"""Files in, validated arrays out: who is in the cohort, what can be read of them, who trains, validates and tests."""
