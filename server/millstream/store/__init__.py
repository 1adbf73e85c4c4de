"""What outlives a request: responses, conversations, their items, and the events of answers.

`Store` is the way in. Rules: everything has an owner, and is found only with it. What was
acknowledged is there after the process is killed; what was deleted is in no file any more.
"""
