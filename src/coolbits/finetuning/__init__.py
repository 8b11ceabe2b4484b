"""Supervised fine-tuning: conversations to tokens and masks, then training on the assistant's turns alone.

sources, questions      conversations, from files, the hub, or built from the corpus
templates, encoding     a conversation as tokens, and which of them are learned
examples                how they lie on the disk, and batches of them
conversations           the stage that makes them
training, saved, stage  the loop, its resumable state, the stage that makes fine-tuned models
"""
