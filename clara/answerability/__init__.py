"""Whether a passage answers a question, by an encoder that reads both together.

Vectors of whole texts say what a passage is about, names and words what it mentions. That it leaves
out the one thing that is asked for shows only where each word of the question can look at each word
of the passage. So a small adapter teaches the sentence encoder to read them as one text, and two
heads on its states to tell whether the passage holds an answer, and where.
"""
