"""Explanations as short rules over tokens: their language, matcher, explainer and judge."""
