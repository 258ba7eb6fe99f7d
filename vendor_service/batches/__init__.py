"""What is done in no hurry: files of many requests, and the jobs that answer them when nobody else asks."""
