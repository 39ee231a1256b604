-- What labels cost, by reference method and system; times in seconds.
SELECT * FROM v_label_cost ORDER BY seconds DESC;
