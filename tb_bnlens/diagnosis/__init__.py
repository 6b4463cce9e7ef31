"""Facts -> decisions -> words: ``causes`` is the table, ``decide`` the only decision, ``words`` the text."""
