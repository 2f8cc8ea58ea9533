"""Make the records that upstream systems would send: Urza, Urabrask, Weatherlight, Kasmina and Tamiyo."""
