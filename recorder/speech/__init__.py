"""What upstream systems say: records of Urza, Urabrask, Weatherlight, Kasmina and Tamiyo."""
