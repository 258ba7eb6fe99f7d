"""Who answers about an image: the student, or the vendor, which is asked where the student is unsure?"""
