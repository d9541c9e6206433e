import edu.anu.spice.LmdbTupleDB;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;

/** Puts hand-made tuples into the cache of the SPICE tool: arguments DATABASE FILE, lines `caption TAB a|b|c;a|b;a`. */
public final class FillCache {
    public static void main(String[] arguments) throws Exception {
        Map<String, ArrayList<ArrayList<String>>> captions = new HashMap<>();
        for (String line : Files.readAllLines(Paths.get(arguments[1]), StandardCharsets.UTF_8)) {
            String[] fields = line.split("\t", -1);
            ArrayList<ArrayList<String>> tuples = new ArrayList<>();
            for (String tuple : fields[1].split(";")) {
                if (!tuple.isEmpty()) {
                    tuples.add(new ArrayList<>(Arrays.asList(tuple.split("\\|"))));
                }
            }
            captions.put(fields[0], tuples);
        }
        new LmdbTupleDB(arguments[0]).putTransaction(captions);
    }
}
