"""clearnets: are networks that are sparse by construction more interpretable?"""
