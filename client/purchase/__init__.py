"""What is bought, within which budget, and once only?"""
