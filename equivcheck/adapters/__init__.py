"""Other people's attentions in the forms that equivcheck takes: a few lines each, and what they need is imported when used."""
