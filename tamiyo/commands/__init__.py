"""Define the commands of `tamiyo`, a module each: arguments in, a table or one JSON object out."""
